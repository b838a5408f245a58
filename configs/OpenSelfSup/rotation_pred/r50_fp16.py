_base_ = './r50.py'
amp = 'fp16'
