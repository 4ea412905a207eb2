"""Tests, a folder for each room of the engine; what concerns the front door is up here.

`oracles/` holds what results are compared with: the joint table, and random programs to try it on.
"""
