"""The data sets of the papers: what they are, where they lie, their clips.

`protocol` says what is written down of a data set, `prediction` and
`interpolation` have it of each, `layouts` finds their files, `sequences` reads
them, `folders` cuts them into clips.
"""
