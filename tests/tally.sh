# Sourced by test scripts: result NAME STATUS tells and counts a test, with what is in $dir/log when it failed; tally is the last line, and the script's end.
passed=0 failed=0
result() {
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
        echo "ok $1"
    else
        failed=$((failed + 1))
        echo "FAIL $1"
        if [ -s "$dir/log" ]; then sed 's/^/    /' "$dir/log"; fi
    fi
}
tally() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
