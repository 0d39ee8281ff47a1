<?php // What is included is not there, unless somebody plants it.
@include 'planted.php';
require __DIR__ . '/work.php';
