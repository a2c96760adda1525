"""What runs pods: the node agents' part."""
