"""What is known: read, commit and watch behind one interface."""
