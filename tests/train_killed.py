"""Trains with kills at random moments until the training is done; what test_resume.py starts.

python tests/train_killed.py MOST_KILLS RUN SETTINGS...      prints how often it was killed

A kill comes up to 50 ms after one of the next twenty steps: in a step, in the validation, or while files
are written, whatever the speed of the machine.
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
    most, run, *words = sys.argv[1:]
    set_rate = train.set_rate
    chance, kills = random.Random(5), 0
    assert evaluate and plots
    while True:
        steps, delay_s = chance.randint(1, 20), chance.uniform(0, 0.05)
        child = os.fork()
        if child == 0:
            left = [steps if kills < int(most) else -1]

            def counted(*arguments, left=left, delay_s=delay_s):
                left[0] -= 1
                if left[0] == 0:
                    threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
                return set_rate(*arguments)

            train.set_rate = counted
            asked = ["--resume", run] if (Path(run) / runs.CONFIG).exists() else [*words, "--run_dir", run]
            script.run(functools.partial(train.main, asked))
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        kills += 1
    print("killed", kills, "times")
    sys.exit(os.waitstatus_to_exitcode(status))
