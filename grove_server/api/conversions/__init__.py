"""Between resources and the messages of the contract."""
