"""What emitted code is made of, and what a target refuses."""
