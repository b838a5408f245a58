_base_ = './r50_v1.py'
amp = 'fp16'
