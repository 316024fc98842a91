"""Trains with kills at random moments until the training is done; what test_resume.py starts.

python tests/train_killed.py LEAST_KILLS RUN SETTINGS...      prints how often it was killed
"""

import functools
import os
import random
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import evaluate  # so that a child need not load them
import plots
import runs
import script
import train

if __name__ == "__main__":
    least, run, *words = sys.argv[1:]
    chance, kills = random.Random(5), 0
    assert evaluate and plots
    while True:
        wait_s = chance.uniform(0.02, 0.6)
        child = os.fork()
        if child == 0:
            if kills < int(least):
                timer = threading.Timer(wait_s, os.kill, (os.getpid(), signal.SIGKILL))
                timer.daemon = True
                timer.start()
            asked = ["--resume", run] if (Path(run) / runs.CONFIG).exists() else [*words, "--run_dir", run]
            script.run(functools.partial(train.main, asked))
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        kills += 1
    print("killed", kills, "times")
    sys.exit(os.waitstatus_to_exitcode(status))
