"""How files are written and read, whatever is in them."""
