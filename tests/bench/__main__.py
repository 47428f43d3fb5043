"""Every measured table of the README: python -m tests.bench [--data FOLDER].

About two hours on two cores.
"""

from tests.bench import accuracy, colmap, commands, degenerate, matcher, memory, oblique, stitching, verdicts
from tests.bench.report import data_folder, print_environment

folder = data_folder(__doc__)
print_environment()
for part in (accuracy, matcher, commands, verdicts, degenerate, colmap):
    part.main(folder)
oblique.main(folder, count=10, efforts=("fast", "normal", "wide"))
memory.main()
stitching.main(folder)
