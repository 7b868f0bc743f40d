"""The report: reported numbers, rules, verdicts, questions, and the pages that are written from records."""
