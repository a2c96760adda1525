"""What is next: a set's tree, its states and its status. Pure."""
