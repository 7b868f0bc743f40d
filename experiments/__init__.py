"""The paper's tables and figures, one module each, and the command line that runs them."""
