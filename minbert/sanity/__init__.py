"""A sanity check that teaches: what is wrong with somebody's BERT, where, and why.

A check that compares one output with a stored one can only say that something is wrong. This one names the mistake,
because it contains the mistakes that students make, beside the right code:

    their code ──(a child process)── probes ─▶ recorded numbers ─┐
                                                                 ├─▶ equal: passed
    the right code, in small pieces ──────── probes ─▶ numbers ──┤
    … with one or two pieces wrong ───────── probes ─▶ numbers ──┴─▶ equal: this is the mistake

A mistake is written down once, as the wrong piece that makes it. So the table of mistakes is its own test: each one is
put into the right code, and the check must find it and no other. Two mistakes at once are found by putting in two.

    core       what a part is made of: pieces, mistakes, probes; dropout made visible
    parts      the chapters, in the order in which a student writes them: attention, layer, embeddings, …
    project    somebody's files, and their classes by name
    child      the process in which their code runs, guarded, and records
    launch     starts it, and brings back what it recorded
    library    a right BERT made of PyTorch's own layers, in place of the parts below the one that is checked
    judge      compares, and searches the mistakes
    recorded   a part as numbers, for the copies of the exercise, which have no right code in them
    search     looks for techniques, which have no fixed names
    check      all of this for one project
    report     the page for a person, the table for a class

`sanity_check.py` starts it.
"""
