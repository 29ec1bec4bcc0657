"""The lesson: a page that shows the code beside what it says, with every shape seen while the code ran.

python -m minbert.reading --out DIR      writes the page, from the modules as they are
python -m minbert.reading --check        says which shapes in comments and docstrings are false

claims    the shapes that the source states, and which value each is about
watch     looks at these values while the real code runs
scenes    what is run: real sentences through the real model and through each technique
page      writes the page; equations makes MathML of its equations, tests_of finds the tests of a function
"""
