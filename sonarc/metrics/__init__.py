"""How good generated audio is: distances to a pinned reference, agreement with the prompt, variety, sanity.

Shapes: N clips, E embedding dimensions, B batch, A audio channels, S audio samples, P prompts.
"""
