"""One module per service of the contract."""
