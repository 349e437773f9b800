#!/bin/bash
# All GPUs of one machine, without a scheduler; it goes on in the background after you log out:
#
#     nohup bash one_node.sh /data/*.dm4 --context context.yaml -o out > contextem.log &
#
# CUDA_VISIBLE_DEVICES=0,1 before it keeps to those two.

set -euo pipefail
exec contextem batch "$@" --device cuda:all
