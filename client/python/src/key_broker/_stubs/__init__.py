"""Made by client/generate from the contract."""
