"""Labels of atomic columns by several experts: votes in, trusted labels out.

A vote is one expert's class of one column.  consensus makes labels of a table of votes, and tells how far the experts
agree and how good each of them is.
"""
