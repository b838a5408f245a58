# NCT-CRC-HE-100K (Zenodo 1214456), the set that PLM, DenseCL and ConCL pretrain on:
# data/NCT-CRC-HE/NCT-CRC-HE-100K-NONORM/{CLASS}/*.tif and a list of the tiles to use,
# one 'path' or 'path label' a line. Without a list: source=dict(type='ImageFolder', root=...).
dataset = dict(
    type='TileDataset',
    source=dict(
        type='ImageList',
        root='data/NCT-CRC-HE/NCT-CRC-HE-100K-NONORM',
        list_file='data/NCT-CRC-HE/meta/train.txt'))
