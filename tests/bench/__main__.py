"""Every measured table of the README: python -m tests.bench [--data FOLDER].

Some four hours on two cores.
"""

from tests.bench import (
    accuracy,
    classifying,
    colmap,
    commands,
    degenerate,
    extracting,
    heads,
    hog_rate,
    matcher,
    memory,
    oblique,
    probed,
    probing,
    stitching,
    verdicts,
)
from tests.bench.report import data_folder, print_environment

folder = data_folder(__doc__)
print_environment()
for part in (accuracy, matcher, commands, verdicts, degenerate, colmap):
    part.main(folder)
oblique.main(folder, count=10, efforts=("fast", "normal", "wide"))
memory.main()
stitching.main(folder)
hog_rate.main()
heads.main(folder)
classifying.main(folder, hand=True)
extracting.main(folder)
probing.main()
probed.main(folder)
