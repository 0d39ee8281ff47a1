#!/bin/sh -e
read -r secret < /app/secret.txt
echo "{\"secret\": \"$secret\", \"options\": \"$-\", \"words\": \"$0 $*\"}"
