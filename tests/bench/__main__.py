"""Every measured table of the README: python -m tests.bench [--data FOLDER]."""

from tests.bench import accuracy, colmap, commands, matcher, verdicts
from tests.bench.report import data_folder, print_environment

folder = data_folder(__doc__)
print_environment()
for part in (accuracy, matcher, commands, verdicts, colmap):
    part.main(folder)
