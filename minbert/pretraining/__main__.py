"""`python -m minbert.pretraining`."""

import minbert.pretraining
from minbert.command_line import show_help

show_help("p", minbert.pretraining.__doc__, "python -m minbert.pretraining")  # before PyTorch is loaded

from minbert.pretraining.script import main

if __name__ == "__main__":
    main()
