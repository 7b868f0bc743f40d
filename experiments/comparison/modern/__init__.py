"""Libraries that solve ODEs and take gradients through them, each behind one small class, in a process of its own."""
