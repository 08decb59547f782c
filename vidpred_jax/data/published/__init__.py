"""The data sets of the papers: their protocols, files and clips.

`protocol` has the record of a data set; `prediction` and `interpolation` have
the records of all data sets. `layouts` finds their files, `sequences` reads
them, `folders` cuts them into clips.
"""
