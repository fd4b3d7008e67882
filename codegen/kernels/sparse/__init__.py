"""Forward adders with constant filters that walk lists of the taps above zero."""
