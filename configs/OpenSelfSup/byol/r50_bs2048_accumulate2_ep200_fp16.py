_base_ = './r50_bs256_accumulate16_ep300.py'
amp = 'fp16'
epochs = 200
accumulate = 2
