module modelwright.dev/devcluster/tools/pause

go 1.26
