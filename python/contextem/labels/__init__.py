"""Labels of atomic columns by several experts: votes in, trusted labels out.

Experts see a micrograph as tiles.  What one of them does to its columns is an action; the store keeps these votes, and
no expert is told of those of another one.  consensus makes labels of a table of votes, and tells how far the experts
agree and how good each of them is.  server is all this for browsers.
"""
