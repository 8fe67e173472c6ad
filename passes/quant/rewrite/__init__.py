"""The plan for the whole model, and the edits that put it into the graph or take it out again."""
