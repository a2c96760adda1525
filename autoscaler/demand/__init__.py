"""What will be asked of a role when a replica that is started now can serve."""
