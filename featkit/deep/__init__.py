"""Networks, frozen: which there are, where their weights come from, what is in them, how they want their pictures."""
