"""Does it learn? Methods pretrained under one budget, evaluated alike, compared case by case.

    python -m benchmarks.learning --data DIR --methods plm,densecl,moco,simclr,ca2cl --seeds 3 \\
        --budget 40min

DIR holds class folders under train/ and test/, file names that tell the case (those of EBHI-SEG,
Shi et al. 2023: ``GT2012468-1-400-001.png``, or others: --patient_pattern), and, for probes of
cells, binary masks of the same names under masks/train/ and masks/test/. All methods see the
training tiles without labels, under the same budget; frozen features are then classified
(linear-v1, knn-v1) with 5, 20 and 100 % of the labels and their cells probed on the masks, beside
colour and random weights. Differences are paired: whole cases are redrawn, for whole tiles
stratified by class, and seeds averaged; methods are compared with each other, too.

Without --final a third of the training cases is held out and test/ is not read: choose there. Mind
that pretraining has seen those tiles, too. What is finished is kept in --out and not repeated.

With --supervised a network is also trained end to end from random weights with the same labelled
tiles (finetune-v1), for the main labelling; it stands in the tables of linear-v1. It takes about
three times as long as EPOCHS with all labels: every share is trained for as many steps.

With --glas, the official GlaS images, cells are probed on them, too; with --final a small Mask
R-CNN is fine-tuned on them from each backbone and from random weights (--gland-iterations). Its
scores are of its last iteration, on all 80 test images. Intervals on GlaS redraw images, not
patients, of whom each has several: they are rather too narrow.

results.json, tables.md and index.html of --out/final hold numbers alone and can be published:
results.json to docs/learning/, tables.md to docs/learning.md.
"""
