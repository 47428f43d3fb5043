"""Vectors to answers: what turns features into labels, how well it does, and what it shows of that."""
