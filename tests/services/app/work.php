<?php // A shared extension beside what is built in.
$secret = trim(file_get_contents('/app/secret.txt'));
echo json_encode(['secret' => $secret, 'sha' => substr(hash('sha256', 'x'), 0, 4), 'zone' => date_default_timezone_get()]), "\n";
