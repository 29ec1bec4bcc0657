"""The exercise: a student's copy of the project, in which the bodies of the functions to be written are taken out.

    python -m minbert.exercise --out DIR                           all parts
    python -m minbert.exercise --out DIR --parts attention,layer   these; the others stay as they are
    python -m minbert.exercise --out DIR --layout course           bert.py and optimizer.py on top, as in the course

The copy is made from the code that runs, so it cannot become stale. Docstrings, shapes and comments stay, as hints;
`python sanity_check.py` inside it says what is next, what is wrong and why. TEACHERS.md says how to use it in a class.

    parts     the functions of each part, in the order in which to write them
    blank     takes the bodies out, and searches for what is left of them
    questions what the copy has of the sanity check: its questions, and recorded numbers in place of right code
    copies    writes the copy
    inside/   what the copy has besides: its README.md and its sanity_check.py
"""
