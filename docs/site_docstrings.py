"""Docstrings of this project say "name : what it is" on one line, where NumPy's style has a type; the site reads them so."""

import re

from griffe import Extension

ENTRY = re.compile(r"^( *)([A-Za-z_][\w, ]*?) : (.+)$", flags=re.MULTILINE)


class Entries(Extension):
    """Put what stands behind the colon on a line of its own, as a description."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = ENTRY.sub(r"\1\2\n\1    \3", obj.docstring.value)
