"""Files that are whole or not there at all."""

import os
import secrets
from pathlib import Path


def write_atomically(path, content):
    """Write the bytes `content` to `path` so that no reader, and no end of this process, ever finds a part of them there."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
