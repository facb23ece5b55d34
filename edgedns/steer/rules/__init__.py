"""The rules language: YAML with places, words and kinds of values, one zone's fields, what hides what, what is pointless."""
