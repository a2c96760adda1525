"""How many replicas a role needs for a demand, by each of the policies it is sized by."""
