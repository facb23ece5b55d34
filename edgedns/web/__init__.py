"""The pages of the admin side and the description of its JSON."""
