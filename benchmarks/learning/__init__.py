"""Does it learn? Methods pretrained under one budget, evaluated alike, compared case by case.

    python -m benchmarks.learning --data DIR --methods plm,densecl,moco,simclr,ca2cl --seeds 3 \\
        --budget 40min

docs/learning.md says what DIR holds, what is compared and what came out.
"""
