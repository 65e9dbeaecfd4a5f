#!/usr/bin/env bash
# Ask the service from a shell: examples/curl.sh [URL] [MODEL]
# Set CXRSERVE_KEY if the service needs an API key.
set -euo pipefail

url="${1:-http://127.0.0.1:8000}"
model="${2:-pneumothorax}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
ask=(curl --silent --show-error)
if [ -n "${CXRSERVE_KEY:-}" ]; then ask+=(--header "authorization: Bearer $CXRSERVE_KEY"); fi

echo "Is it ready?"
"${ask[@]}" --fail "$url/readyz" && echo

echo "Fetch a phantom, as a DICOM file and as a PNG."
"${ask[@]}" --fail "$url/sample.dcm" --output "$folder/sample.dcm"
"${ask[@]}" --fail "$url/sample.png" --output "$folder/sample.png"

echo "Predict one file, with test-time augmentation."
"${ask[@]}" --fail -F "file=@$folder/sample.dcm" "$url/predict?model=$model&tta=true" && echo

echo "A PNG states no age, sex or view: the request may."
"${ask[@]}" --fail -F "file=@$folder/sample.png" \
  "$url/predict?model=$model&age_years=58&sex=M&view_position=PA" && echo

echo "Predict two files in one request."
"${ask[@]}" --fail -F "files=@$folder/sample.dcm" -F "files=@$folder/sample.png" \
  "$url/predict/batch?model=$model" && echo

echo "Get a DICOM structured report."
"${ask[@]}" --fail -F "file=@$folder/sample.dcm" "$url/predict/dicom?result=sr&model=$model" \
  --output "$folder/report.dcm"
wc -c < "$folder/report.dcm"

echo "An error is a problem document with a stable code."
"${ask[@]}" -F "file=@$0" "$url/predict?model=$model" && echo
