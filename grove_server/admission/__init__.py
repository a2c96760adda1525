"""What is allowed: defaulting and validation; every refusal names the field path. Pure."""
