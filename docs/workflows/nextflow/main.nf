// Raw scans to stores, images and checks: the steps of ../snakemake/Snakefile for Nextflow.
//
// NOT RUN BY THE TESTS of stemstore: Nextflow cannot be installed from a Python package index. Written for DSL2.
//
//     nextflow run main.nf --scans '/data/raw/*' --results /data/results
//
// Stores are written to their final place by the jobs themselves, so that no job copies pixels; `val` channels carry
// their paths. `params.results` must be an absolute path that all machines see, and so must be what `params.scans` names:
// every job reads the raw files in their own place.

params.scans    = 'raw/*'
params.results  = "${launchDir}/results"
params.convert  = '--count'
params.tasks    = 4
params.threads  = 2
params.detector = '--annulus 4 9 --unit pixel'

process PLAN {
    input:  path raw, stageAs: 'raw/*'
    output: tuple val(raw.baseName), path('plan.json')
    script:
    """
    mkdir -p '${params.results}'
    stemstore plan "\$(realpath raw/*)" '${params.results}/${raw.baseName}.zarr' \
        --tasks ${params.tasks} ${params.convert} --json > plan.json
    """
}

process PARTITION {
    cpus params.threads
    errorStrategy 'retry'
    maxRetries 2

    input:  tuple val(scan), val(job)
    output: tuple val(scan), val(job)
    script:
    """
    stemstore partition '${params.results}/${scan}.zarr' ${job} --workers ${task.cpus} --progress none
    """
}

process FINALISE {
    publishDir params.results, mode: 'copy'

    input:  tuple val(scan), val(jobs)
    output: tuple val(scan), path("${scan}.finalise.json")
    script:
    """
    stemstore finalise '${params.results}/${scan}.zarr' --json > '${scan}.finalise.json'
    """
}

process VIRTUAL {
    publishDir params.results, mode: 'copy'

    input:  tuple val(scan), path(finalised)
    output: tuple path("${scan}.virtual.png"), path("${scan}.virtual.json")
    script:
    """
    stemstore virtual '${params.results}/${scan}.zarr' ${params.detector} \
        -o '${scan}.virtual.png' --json > '${scan}.virtual.json'
    """
}

process VALIDATE {
    publishDir params.results, mode: 'copy'

    input:  tuple val(scan), path(finalised)
    output: tuple path("${scan}.validate.json"), path("${scan}.prov.json")
    script:
    """
    stemstore validate '${params.results}/${scan}.zarr' --deep --progress none --json > '${scan}.validate.json'
    stemstore crate '${params.results}/${scan}.zarr' --format prov-json -o '${scan}.prov.json'
    """
}

workflow {
    planned = PLAN(channel.fromPath(params.scans, type: 'any'))
    jobs = planned.flatMap { scan, plan ->
        def n = new groovy.json.JsonSlurper().parse(plan.toFile()).n_tasks
        (0..<n).collect { job -> tuple(groupKey(scan, n), job) }
    }
    done = PARTITION(jobs).groupTuple().map { scan, numbers -> tuple(scan.toString(), numbers) }
    finalised = FINALISE(done)
    VIRTUAL(finalised)
    VALIDATE(finalised)
}
