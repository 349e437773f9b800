"""Labelling by several experts, who do not see each other's votes: tiles -> actions -> votes -> consensus -> server."""
